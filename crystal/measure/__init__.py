"""What answers mean: the quantities, their intervals and nulls, and whether a claim holds.

Arrays in, numbers and verdicts out. Knows no model, no ladder and no store, so that it can be tried
on ladders of known truth.

    quantities  liquidity, spread, entropy and distances, from distributions or from counts
    inference   intervals, nulls and floors for them; random streams
    evidence    answers with what they rest on: who was asked, how many draws; answered or not
    joint       one context for all tasks: statistic, null, progress, one or several
    claims      every claim: its threshold, statistic and null; the rule for verdicts
    chain       all claims of one series, in their order, one task at a time and together
    synthetic   ladders of known truth, made of numbers alone; the readings of the paper's ratio
    validation  the claims tried on them, kept row by row in data/validation
"""
