def is_leap_year(year):
    if year % 400 == 0:
        return True
    return year % 4 == 0 and year % 100 != 0


def days_in_month(month, leap):
    if month == 2:
        return 29 if leap else 28
    if month in (4, 6, 9, 11):
        return 30
    return 31


def minutes_between(start, end):
    if end < start:
        end += 24 * 60
    return end - start


def minutes_to_clock(n):
    hours = n // 60 % 24
    minutes = n % 60
    return str(hours) + ":" + str(minutes).zfill(2)


def is_weekend_after(day, n):
    day = (day + n) % 7
    return day == 5 or day == 6


def next_month(year, month):
    if month == 12:
        return (year + 1, 1)
    return (year, month + 1)


def age_in_years(born, today):
    years = today[0] - born[0]
    if today[1:] < born[1:]:
        years -= 1
    return years


def quarter_of_month(month):
    if month < 1 or month > 12:
        return None
    return (month - 1) // 3 + 1


CASES = {
    "is_leap_year": [
        ((2024,), True), ((1900,), False), ((2000,), True), ((2023,), False), ((2100,), False),
        ((4,), True), ((400,), True), ((2022,), False), ((200,), False), ((1996,), True),
    ],
    "days_in_month": [
        ((2, False), 28), ((2, True), 29), ((4, False), 30), ((12, True), 31), ((1, False), 31),
        ((6, True), 30), ((9, False), 30), ((11, False), 30), ((3, False), 31), ((7, True), 31),
    ],
    "minutes_between": [
        ((60, 90), 30), ((1430, 10), 20), ((5, 5), 0), ((100, 99), 1439), ((0, 1439), 1439),
        ((1, 0), 1439), ((720, 60), 780), ((0, 1), 1),
    ],
    "minutes_to_clock": [
        ((75,), "1:15"), ((0,), "0:00"), ((1445,), "0:05"), ((59,), "0:59"), ((60,), "1:00"),
        ((1439,), "23:59"), ((1440,), "0:00"), ((615,), "10:15"), ((779,), "12:59"),
    ],
    "is_weekend_after": [
        ((0, 5), True), ((0, 4), False), ((5, 1), True), ((5, 0), True), ((6, 1), False),
        ((0, 6), True), ((6, 7), True), ((1, 2), False), ((0, 7), False), ((3, 10), True),
    ],
    "next_month": [
        ((2020, 12), (2021, 1)), ((2020, 1), (2020, 2)), ((1999, 11), (1999, 12)),
        ((5, 6), (5, 7)), ((1999, 12), (2000, 1)), ((0, 10), (0, 11)), ((2023, 2), (2023, 3)),
        ((1, 12), (2, 1)),
    ],
    "age_in_years": [
        (((2000, 5, 10), (2020, 5, 10)), 20), (((2000, 5, 10), (2020, 5, 9)), 19),
        (((2000, 5, 10), (2020, 6, 1)), 20), (((2000, 5, 10), (2020, 4, 20)), 19),
        (((1990, 1, 1), (1990, 1, 1)), 0), (((1990, 12, 31), (1991, 1, 1)), 0),
        (((1990, 3, 2), (1991, 3, 1)), 0), (((1980, 2, 3), (2000, 2, 4)), 20),
    ],
    "quarter_of_month": [
        ((1,), 1), ((12,), 4), ((0,), None), ((13,), None), ((3,), 1), ((4,), 2), ((6,), 2),
        ((7,), 3), ((9,), 3), ((10,), 4),
    ],
}
