def is_strong_password(s):
    if len(s) < 6:
        return False
    has_digit = any(c.isdigit() for c in s)
    has_upper = any(c.isupper() for c in s)
    return has_digit and has_upper


def are_brackets_balanced(s):
    count = 0
    for c in s:
        count += (c == "(") - (c == ")")
        if count < 0:
            return False
    return count == 0


def passes_luhn(xs):
    total = 0
    for i in range(len(xs)):
        x = xs[-1 - i] * (i % 2 + 1)
        total += x - 9 if x > 9 else x
    return total % 10 == 0


def is_valid_name(s):
    if not s or s[0].isdigit():
        return False
    for c in s:
        if not c.isalnum() and c != "_":
            return False
    return True


def is_valid_time(hours, minutes):
    if hours < 0 or hours > 23:
        return False
    return minutes >= 0 and minutes <= 59


def is_valid_triangle(a, b, c):
    if a + b <= c or a + c <= b:
        return False
    return b + c > a


def is_ip_address(s):
    words = s.split(".")
    if len(words) != 4:
        return False
    for word in words:
        if not word.isdigit() or int(word) > 255:
            return False
    return True


def is_product_code(s):
    if len(s) != 6 or s[2] != "-":
        return False
    return s[:2].isalpha() and s[3:].isdigit()


CASES = {
    "is_strong_password": [
        (("Abc123",), True), (("abc123",), False), (("Abcdef",), False), (("Ab123",), False),
        (("",), False), (("abcdefg",), False), (("A1",), False), (("PASSWORD1",), True),
        (("1234567",), False), (("xxxxxZ9",), True),
    ],
    "are_brackets_balanced": [
        (("(a)",), True), (("(()",), False), ((")(",), False), (("",), True), (("())",), False),
        (("()()",), True), (("((x)y)",), True), (("(",), False), (("())(",), False),
        (("ab",), True),
    ],
    "passes_luhn": [
        (([1, 8],), True), (([1, 2],), False), (([5, 9],), True), (([4, 2, 2],), True),
        (([],), True), (([0],), True), (([7],), False), (([7, 9, 9, 2, 7],), False),
        (([1, 0, 9],), True), (([9, 1],), True),
    ],
    "is_valid_name": [
        (("ab_1",), True), (("1ab",), False), (("",), False), (("a b",), False), (("_x",), True),
        (("x",), True), (("a-b",), False), (("a1",), True), (("7",), False), (("_",), True),
    ],
    "is_valid_time": [
        ((5, 60), False), ((-1, 10), False), ((0, 0), True), ((23, 59), True), ((12, 30), True),
        ((24, 0), False), ((10, -1), False), ((25, 61), False), ((1, 58), True), ((0, 60), False),
    ],
    "is_valid_triangle": [
        ((1, 2, 3), False), ((3, 1, 2), False), ((1, 3, 2), False), ((4, 2, 3), True),
        ((3, 4, 5), True), ((5, 1, 2), False), ((2, 9, 3), False), ((1, 1, 1), True),
        ((0, 1, 1), False), ((2, 2, 3), True),
    ],
    "is_ip_address": [
        (("1.2.3.4",), True), (("1.2.3",), False), (("1.2.3.256",), False),
        (("255.255.255.255",), True), (("a.2.3.4",), False), (("0.0.0.0",), True),
        (("1.2.3.4.5",), False), (("",), False), (("1.2..4",), False), (("1.300.3.4",), False),
    ],
    "is_product_code": [
        (("AB-123",), True), (("A1-123",), False), (("AB_123",), False), (("AB--12",), False),
        (("AB123",), False), (("AB-12x",), False), (("ab-000",), True), (("AB-1234",), False),
        (("",), False), (("12-345",), False),
    ],
}
