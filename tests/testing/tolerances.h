/* Every tolerance of the tests, with its reason. One line each. */
#ifndef QZ_TOLERANCES_H
#define QZ_TOLERANCES_H

#define TOL_ONE_PRODUCT 2e-7 /* relative; code times scale is one fp32 product: at most one rounding apart */
#define TOL_SUM_F32 1e-6     /* of the sum of magnitudes; numpy adds fp32 pairwise, we add in double */

#endif
