def add_tax(price, rate):
    tax = price * rate // 100
    return price + tax


def bulk_price(price, n):
    total = price * n
    if n >= 10:
        total -= total // 10
    return total


def count_coins(n):
    count = 0
    for coin in [25, 10, 5, 1]:
        count += n // coin
        n %= coin
    return count


def split_bill(total, n):
    result = [total // n] * n
    for i in range(total % n):
        result[i] += 1
    return result


def balance_after_years(balance, rate, n):
    for _ in range(n):
        balance += balance * rate // 100
    return balance


def shipping_cost(total, weight):
    if total >= 50:
        return 0
    if weight <= 1:
        return 5
    return 5 + (weight - 1) * 2


def best_profit(prices):
    best, low = 0, prices[0]
    for price in prices:
        low = min(low, price)
        best = max(best, price - low)
    return best


def income_tax(income):
    if income <= 100:
        return 0
    if income <= 500:
        return income // 10
    return income // 5


CASES = {
    "add_tax": [
        ((100, 20), 120), ((50, 10), 55), ((0, 5), 0), ((99, 1), 99), ((200, 0), 200),
        ((10, 100), 20), ((500, 7), 535), ((101, 99), 200), ((100, 1), 101),
    ],
    "bulk_price": [
        ((5, 2), 10), ((5, 10), 45), ((3, 9), 27), ((10, 11), 99), ((0, 10), 0), ((7, 0), 0),
        ((1, 10), 9), ((2, 20), 36), ((11, 10), 99),
    ],
    "count_coins": [
        ((41,), 4), ((0,), 0), ((25,), 1), ((9,), 5), ((30,), 2), ((10,), 1), ((5,), 1),
        ((99,), 9), ((24,), 6), ((50,), 2),
    ],
    "split_bill": [
        ((10, 2), [5, 5]), ((10, 3), [4, 3, 3]), ((5, 1), [5]), ((2, 4), [1, 1, 0, 0]),
        ((0, 2), [0, 0]), ((11, 3), [4, 4, 3]), ((7, 7), [1, 1, 1, 1, 1, 1, 1]), ((1, 2), [1, 0]),
    ],
    "balance_after_years": [
        ((100, 10, 2), 121), ((100, 5, 0), 100), ((200, 50, 1), 300), ((0, 9, 3), 0),
        ((99, 1, 5), 99), ((100, 100, 3), 800), ((50, 0, 4), 50), ((1000, 1, 2), 1020),
    ],
    "shipping_cost": [
        ((20, 3), 9), ((50, 9), 0), ((49, 1), 5), ((10, 2), 7), ((80, 1), 0), ((0, 0), 5),
        ((51, 4), 0), ((49, 5), 13), ((1, 1), 5),
    ],
    "best_profit": [
        (([3, 1, 4],), 3), (([5, 4, 2],), 0), (([1, 6, 2],), 5), (([7],), 0), (([2, 2],), 0),
        (([4, 9, 1, 3],), 5), (([1, 2, 3],), 2), (([8, 0, 8],), 8),
    ],
    "income_tax": [
        ((100,), 0), ((500,), 50), ((501,), 100), ((101,), 10), ((50,), 0), ((300,), 30),
        ((600,), 120), ((110,), 11), ((505,), 101), ((0,), 0),
    ],
}
