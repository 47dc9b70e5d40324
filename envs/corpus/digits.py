def digit_sum(n):
    total = 0
    while n > 0:
        total += n % 10
        n //= 10
    return total


def count_digits(n):
    count = 1
    while n >= 10:
        n //= 10
        count += 1
    return count


def reverse_digits(n):
    result = 0
    while n > 0:
        result = result * 10 + n % 10
        n //= 10
    return result


def digital_root(n):
    while n > 9:
        n = n // 10 + n % 10
    return n


def largest_digit(n):
    best = 0
    while n > 0:
        if n % 10 > best:
            best = n % 10
        n //= 10
    return best


def count_even_digits(n):
    count = 0
    for c in str(n):
        if int(c) % 2 == 0:
            count += 1
    return count


def digits_to_number(xs):
    result = 0
    for x in xs:
        result = result * 10 + x
    return result


def has_equal_neighbor_digits(n):
    s = str(n)
    for i in range(len(s) - 1):
        if s[i] == s[i + 1]:
            return True
    return False


CASES = {
    "digit_sum": [
        ((123,), 6), ((0,), 0), ((10,), 1), ((99,), 18), ((5,), 5), ((1,), 1), ((405,), 9),
        ((1000,), 1), ((777,), 21),
    ],
    "count_digits": [
        ((123,), 3), ((0,), 1), ((99,), 2), ((100,), 3), ((10,), 2), ((9,), 1), ((5,), 1),
        ((12345,), 5), ((999,), 3),
    ],
    "reverse_digits": [
        ((123,), 321), ((0,), 0), ((10,), 1), ((5,), 5), ((90,), 9), ((1,), 1), ((407,), 704),
        ((1221,), 1221), ((99,), 99),
    ],
    "digital_root": [
        ((38,), 2), ((9,), 9), ((10,), 1), ((99,), 9), ((0,), 0), ((5,), 5), ((493,), 7),
        ((18,), 9), ((199,), 1),
    ],
    "largest_digit": [
        ((273,), 7), ((0,), 0), ((10,), 1), ((9,), 9), ((1,), 1), ((481,), 8), ((111,), 1),
        ((190,), 9), ((32,), 3),
    ],
    "count_even_digits": [
        ((1234,), 2), ((0,), 1), ((135,), 0), ((20,), 2), ((7,), 0), ((8,), 1), ((666,), 3),
        ((101,), 1), ((3569,), 1),
    ],
    "digits_to_number": [
        (([1, 2, 3],), 123), (([],), 0), (([0, 5],), 5), (([7],), 7), (([4, 0],), 40),
        (([0],), 0), (([9, 9],), 99), (([1, 0, 0, 1],), 1001),
    ],
    "has_equal_neighbor_digits": [
        ((1223,), True), ((123,), False), ((11,), True), ((121,), False), ((5,), False),
        ((0,), False), ((100,), True), ((5455,), True), ((90909,), False),
    ],
}
