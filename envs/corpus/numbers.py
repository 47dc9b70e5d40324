def clamp(x, low, high):
    if x < low:
        return low
    if x > high:
        return high
    return x


def sign(x):
    if x > 0:
        return 1
    if x < 0:
        return -1
    return 0


def gcd(a, b):
    while b != 0:
        a, b = b, a % b
    return a


def is_prime(n):
    if n < 2:
        return False
    for i in range(2, n):
        if n % i == 0:
            return False
    return True


def factorial(n):
    result = 1
    for i in range(2, n + 1):
        result *= i
    return result


def collatz_steps(n):
    count = 0
    while n != 1:
        n = n // 2 if n % 2 == 0 else 3 * n + 1
        count += 1
    return count


def sum_of_divisors(n):
    total = 0
    for i in range(1, n + 1):
        if n % i == 0:
            total += i
    return total


def round_up_to_multiple(n, k):
    if n % k == 0:
        return n
    return (n // k + 1) * k


CASES = {
    "clamp": [
        ((5, 0, 10), 5), ((-3, 0, 10), 0), ((12, 0, 10), 10), ((0, 0, 10), 0), ((10, 0, 10), 10),
        ((4, 4, 4), 4), ((-7, -5, -2), -5), ((3, 1, 2), 2), ((1, 2, 9), 2),
    ],
    "sign": [
        ((7,), 1), ((0,), 0), ((1,), 1), ((-1,), -1), ((-4,), -1), ((100,), 1), ((-100,), -1),
        ((0.5,), 1),
    ],
    "gcd": [
        ((12, 8), 4), ((8, 12), 4), ((7, 3), 1), ((5, 0), 5), ((0, 5), 5), ((9, 9), 9),
        ((1, 10), 1), ((100, 75), 25),
    ],
    "is_prime": [
        ((7,), True), ((2,), True), ((1,), False), ((4,), False), ((9,), False), ((0,), False),
        ((3,), True), ((25,), False), ((13,), True), ((-5,), False),
    ],
    "factorial": [
        ((4,), 24), ((1,), 1), ((0,), 1), ((3,), 6), ((2,), 2), ((5,), 120), ((6,), 720),
        ((7,), 5040),
    ],
    "collatz_steps": [
        ((1,), 0), ((2,), 1), ((3,), 7), ((6,), 8), ((4,), 2), ((5,), 5), ((8,), 3), ((7,), 16),
    ],
    "sum_of_divisors": [
        ((6,), 12), ((1,), 1), ((7,), 8), ((0,), 0), ((4,), 7), ((10,), 18), ((12,), 28),
        ((2,), 3),
    ],
    "round_up_to_multiple": [
        ((7, 5), 10), ((10, 5), 10), ((0, 3), 0), ((1, 4), 4), ((8, 3), 9), ((-3, 5), 0),
        ((6, 6), 6), ((9, 1), 9), ((13, 4), 16),
    ],
}
