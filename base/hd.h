/* Code that both the C compiler and nvcc compile: QZ_HD marks a function for host and device.
 * This is the only file that looks at which compiler it is. */
#ifndef QZ_BASE_HD_H
#define QZ_BASE_HD_H

#ifdef __CUDACC__
#define QZ_HD static __host__ __device__ __forceinline__
#else
#define QZ_HD static inline
#endif

#endif
