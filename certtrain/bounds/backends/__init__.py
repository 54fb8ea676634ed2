"""Relaxations computed by other tools: auto_LiRPA."""
