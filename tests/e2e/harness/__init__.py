"""Starts the programs under test and talks to them: real processes, real sockets, no fakes of ours."""
