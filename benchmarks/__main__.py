"""`python -m benchmarks`: Rowtap beside the floor, as benchmarks/relay.py measures it, with its arguments."""

from benchmarks.relay import main

main()
