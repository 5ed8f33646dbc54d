"""Coefficients of the polynomial p of elementwise.cu: erfc(z) = t·exp(p(t) − z²), t = 1/(1 + z/2).

p interpolates at Chebyshev's points of [0.05, 1] (z from 0 to 38). Needs mpmath. Prints the coefficients, constant first, and the largest
error of p, with coefficients rounded to float32, for z up to 10.
"""
import struct

import mpmath as mp

mp.mp.dps = 40
DEGREE, LOW, HIGH = 9, mp.mpf("0.05"), mp.mpf(1)


def exact(t):
    z = 2 * (1 / t - 1)
    return mp.log(mp.erfc(z) / t) + z * z


def rounded(x):
    return mp.mpf(struct.unpack("f", struct.pack("f", float(x)))[0])


n = DEGREE + 1
points = [(LOW + HIGH) / 2 + (HIGH - LOW) / 2 * mp.cos(mp.pi * (2 * i + 1) / (2 * n)) for i in range(n)]
matrix = mp.matrix(n, n)
for i, x in enumerate(points):
    for j in range(n):
        matrix[i, j] = x**j
coefficients = [mp.nstr(c, 9) for c in mp.lu_solve(matrix, mp.matrix([exact(x) for x in points]))]
print(*coefficients)
values = [rounded(c) for c in coefficients]
worst = 0
for i in range(2001):
    t = 1 / (1 + mp.mpf(i) / 400)
    worst = max(worst, abs(mp.polyval(values[::-1], t) - exact(t)))
print("largest error", mp.nstr(worst, 3))
