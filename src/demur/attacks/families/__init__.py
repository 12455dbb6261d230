"""The attacks known in the literature, one file a family, in wording written for demur."""
