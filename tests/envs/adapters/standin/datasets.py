"""The little of a data set that the environments of the tests use."""


class Dataset(list):
    @classmethod
    def from_list(cls, rows):
        return cls(dict(row) for row in rows)
