"""The steps of tests/official/run: one module a step, plus the processes they share."""
