"""Plugins: what is added to any method (`ddcore.methods.match.Plugin`)."""
