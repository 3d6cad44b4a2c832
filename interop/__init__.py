"""cryobridge between the real programs: what RECOVAR and cryoDRGN make of our files, and we of theirs."""
