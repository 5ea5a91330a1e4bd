"""Distillation: a network learns from the scores of another one, its teacher."""
