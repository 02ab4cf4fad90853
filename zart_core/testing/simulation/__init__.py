"""The whole world from one seed: real engines as workers, in virtual time, in one thread, under bad weather."""
