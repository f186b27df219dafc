/* Proof that the harness reports failure: `fails` is expected to fail (WILL_FAIL), `holds` to pass. */
#include "testing/testing.h"

static int canaries(void)
{
    volatile int alive = 1;
    return alive;
}

Test(canary, holds)
{
    cr_assert(canaries() == 1);
}

Test(canary, fails)
{
    cr_assert(canaries() == 2, "this test must fail");
}
