"""The papers' mathematics as sympy expressions: one file a subject, each checked numerically against the package."""
