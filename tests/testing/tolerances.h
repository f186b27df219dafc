/* Every tolerance of the tests, with its reason. One line each. */
#ifndef QZ_TOLERANCES_H
#define QZ_TOLERANCES_H

#define TOL_ONE_PRODUCT 2e-7     /* relative; code times scale is one fp32 product: at most one rounding apart */
#define TOL_SUM_F32 1e-6         /* of the sum of magnitudes; numpy adds fp32 pairwise, we add in double */
#define TOL_MODEL_F32 5e-5       /* of the tensor's rms, max norm; golden/README.md, models, for fp32 code */
#define TOL_ROPE_FREQUENCY 2e-7  /* relative; one ulp and a half of fp32, torch's powf against ours */
#define TOL_ROPE_TABLE 1e-5      /* of the largest value; golden/README.md, ops, for fp32 */
#define TOL_ROPE_ANGLE 7.75e-8   /* per position; golden/README.md: 1.3 * 2^-24 from rounding the angle to fp32 */
#define TOL_KERNEL_ROUNDING 3e-7 /* of the largest value; a few fp32 roundings against ref's single one */
#define TOL_KERNEL_SUM 3e-6      /* of the largest value; fp32 sums in BLAS order against ref's double ones */
#define TOL_KERNEL_EXP 1e-6      /* of the largest value; exp of an fp32 argument of 10 has ten times its rounding */
#define TOL_GRADIENT 5e-6        /* of the largest value; fp32 code against fourth-order differences in double */
#define TOL_FAR_SCORES 1e-4      /* of the largest value; exp of an fp32 score of hundreds: 2^-24 of it, a few times */
#define TOL_EXP_ULP 1.1          /* fp32 units in the last place; the bound that kernels/cpu_wide.h states */
#define TOL_TANH_ULP 1.5         /* fp32 units in the last place; the bound that kernels/cpu_wide.h states */
#define TOL_OP_F32 1e-5          /* of the largest value; golden/README.md, ops, for fp32 code */
#define TOL_FOLD 5e-5            /* of the output's rms; one fp32 product and quotient more for each weight */
#define TOL_LAYER_ERROR 1e-4     /* relative; fp32 products of K terms against double ones, and of small differences */
#define TOL_METHOD_LOSS 0.01     /* relative; golden/README.md, methods: within 1 % or better */
#define TOL_GPTQ_CODES 0.005     /* of the codes; fp32 sums move a few across a tie, and feedback spreads that */
#define TOL_GPTQ_LOSS 1e-3       /* relative; such codes are near ties: the loss hardly moves */
#define TOL_MSE_PATHS 0.02       /* relative; two ways to sum, and a search that begins elsewhere ends elsewhere */
#define TOL_TIE 1e-5             /* of a step; w / s in fp32 against double: 8 bits of code, 2^-24 of rounding, a few */
#define TOL_EXP_DOUBLE 4e-16     /* relative; 1.5 ulp of binary64, and half a one of the library's exp */
#define TOL_SAME_FP64 1e-9       /* relative; the same sums in double in another order */
#define TOL_LOSS_F32 1e-4        /* relative; products of the Gram matrix and of D G are summed in fp32 */
#define TOL_HALF_GRAM 4.9e-4     /* relative; one rounding to binary16, 2^-11, and a few to fp32 */
#define TOL_GRAM 1e-5            /* of the sum of magnitudes; fp32 sums over tokens, in another order when split */
#define TOL_MIDPOINT 1e-6        /* of a block's largest; golden/README.md, bnb_4bit: codes within it of a midpoint */
#define TOL_DYNAMIC_MAP                                                                                                \
    5e-5 /* of a block's largest; golden/README.md, bnb_4bit: how far the library is off nearest                       \
          */
#define TOL_SCALE_RESTORED 1e-6   /* relative; the library's mean is an fp32 sum, ours a double one */
#define TOL_SUM_OF_ROUNDINGS 1e-5 /* relative; a value at a tie of x / s may fall to either code in fp32 and double */
#define TOL_HISTOGRAM_BIN 0.032   /* relative; a bin of the log histogram is 1/32 of its octave wide */
#define TOL_HISTOGRAM_MSE 0.02    /* relative; error of the range found from bins, against the least one */
#define TOL_HISTOGRAM_KL 0.002    /* nats; divergence of the range found from bins, against the least one */
#define TOL_PARABOLA 0.03         /* rms distance from the lowest point; steps are 0.01 long and do not shrink */
#define TOL_ADAMW_F32 1e-6        /* absolute and relative; ten steps of size 0.01 in fp32 on numbers of about 1 */
#define TOL_LOW_RANK 1e-4         /* of the energy: the iteration ends when a turn adds less than 1e-6 of it */
#define TOL_TRAIN_LOSS 1e-5       /* relative; golden/README.md, train, for fp32 code */
#define TOL_TRAIN_GRADIENT 5e-5   /* norm of the difference over the norm; golden/README.md, train */
#define TOL_TRAIN_BF16 2e-2       /* relative, loss; golden/README.md: "bf16 compute: rel <= 2e-2" */
#define TOL_TRAIN_BF16_GRAD 7e-2  /* norm of the difference over the norm; torch's autocast is up to 8.3e-2 off */
#define TOL_TRAIN_STEPS 1e-4      /* relative; golden/README.md, adamw.json: losses of ten steps */
#define TOL_TRAIN_NORM 5e-4       /* relative; golden/README.md, adamw.json: gradient norms */
#define TOL_TRAIN_SUM 5e-5        /* of the sum of magnitudes; golden/README.md, adamw.json: parameters */
#define TOL_MODEL_GRADIENT 2e-5   /* of the largest of a parameter; fp32 through a model and back, against double */
#define TOL_RULE_GRADIENT 1e-6 /* of the largest; fp32 forward and back against differences in double, good to 1e-9 */
#define TOL_TRAIN_CODES_LOSS 1e-2 /* relative; golden/README.md, qat_w4a8: codes flip with the last bit of an input */
#define TOL_TRAIN_CODES_GRADIENT 5e-2 /* norm of the difference over the norm; golden/README.md, qat_w4a8 */
#define TOL_ADAMW_8BIT                                                                                                 \
    0.02 /* of the way; codes of the dynamic map are a few per cent apart, errors average: 0.009 seen */
#define TOL_LSQ_VALUE 2e-5   /* of the largest scale; golden/README.md, op_lsq */
#define TOL_FAKE_LINEAR 1e-6 /* of the largest; golden/README.md, op_fake_linear and op_pact */

#endif
