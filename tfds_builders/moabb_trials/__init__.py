"""Any set of motor imagery that the MOABB package knows, one trial a record."""
