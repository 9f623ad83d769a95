"""The ground floor: who. Imports none of the others."""
