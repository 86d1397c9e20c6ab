"""The papers' mathematics: as sympy expressions, each checked numerically against the package, and as simulations."""
