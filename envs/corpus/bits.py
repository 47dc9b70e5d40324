def count_one_bits(n):
    count = 0
    while n > 0:
        count += n % 2
        n //= 2
    return count


def is_power_of_two(n):
    if n < 1:
        return False
    return n & (n - 1) == 0


def to_binary(n):
    result = ""
    while n > 0:
        result = str(n % 2) + result
        n //= 2
    return result or "0"


def trailing_zero_bits(n):
    count = 0
    while n > 0 and n % 2 == 0:
        n //= 2
        count += 1
    return count


def count_differing_bits(a, b):
    count = 0
    while a > 0 or b > 0:
        if a % 2 != b % 2:
            count += 1
        a //= 2
        b //= 2
    return count


def reverse_bits(n, width):
    result = 0
    for _ in range(width):
        result = result * 2 + n % 2
        n //= 2
    return result


def largest_power_of_two(n):
    x = 1
    while x * 2 <= n:
        x *= 2
    return x


def swap_nibbles(n):
    low = n % 16
    high = n // 16
    return low * 16 + high


CASES = {
    "count_one_bits": [
        ((7,), 3), ((0,), 0), ((8,), 1), ((5,), 2), ((1,), 1), ((2,), 1), ((15,), 4), ((10,), 2),
        ((255,), 8),
    ],
    "is_power_of_two": [
        ((8,), True), ((6,), False), ((1,), True), ((0,), False), ((2,), True), ((3,), False),
        ((-4,), False), ((16,), True), ((10,), False), ((9,), False),
    ],
    "to_binary": [
        ((5,), "101"), ((0,), "0"), ((1,), "1"), ((8,), "1000"), ((2,), "10"), ((3,), "11"),
        ((6,), "110"), ((10,), "1010"),
    ],
    "trailing_zero_bits": [
        ((8,), 3), ((5,), 0), ((0,), 0), ((6,), 1), ((1,), 0), ((2,), 1), ((12,), 2), ((16,), 4),
        ((7,), 0),
    ],
    "count_differing_bits": [
        ((5, 3), 2), ((0, 0), 0), ((7, 0), 3), ((0, 8), 1), ((4, 4), 0), ((1, 2), 2), ((1, 0), 1),
        ((0, 1), 1), ((15, 9), 2), ((3, 12), 4),
    ],
    "reverse_bits": [
        ((1, 3), 4), ((6, 3), 3), ((0, 4), 0), ((5, 4), 10), ((1, 1), 1), ((7, 0), 0),
        ((3, 2), 3), ((8, 4), 1), ((9, 2), 2),
    ],
    "largest_power_of_two": [
        ((10,), 8), ((8,), 8), ((1,), 1), ((7,), 4), ((2,), 2), ((3,), 2), ((16,), 16),
        ((31,), 16), ((0,), 1),
    ],
    "swap_nibbles": [
        ((18,), 33), ((0,), 0), ((1,), 16), ((240,), 15), ((16,), 1), ((15,), 240), ((255,), 255),
        ((67,), 52), ((33,), 18),
    ],
}
