"""What the tests of several wings share: tiny models and tokenizers made afresh, rows of them, and small runs."""
