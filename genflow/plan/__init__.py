"""What a configuration needs on a machine that is not there: memory, work, communication and time of a train step.

`preflight.plan` compiles the train step ahead of time for the devices of a topology and reads the compiled program;
nothing is computed, and no data are read.
"""
