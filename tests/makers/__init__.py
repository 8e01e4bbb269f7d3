"""What tests of several wings train, read and talk to: tiny models made afresh, odd rows, small servers."""
