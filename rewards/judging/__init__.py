"""A model's opinion as a reward: what it is asked, and how little of what it says is believed."""
