"""Runs in a browser: a read-only server of run folders. See docs/dashboard.md."""
