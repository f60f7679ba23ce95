"""The measurements: `python -m tests.bench` prints figures and judges nothing. docs/performance.md reads them."""
