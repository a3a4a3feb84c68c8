"""What answers mean: the quantities, their intervals and nulls, and whether a claim holds.

Arrays in, numbers and verdicts out. Knows no model, no ladder and no store, so that it can be tried on laws of known truth.

    phases      the quantities of the three phases
    chance      streams of random numbers, and what is shuffled with them
    leaving     leaving out one unit at a time, without writing every row out
    inference   intervals, nulls and floors for them
    crossed     liquidity between contexts against liquidity between wordings
    coverage    the same for supports that no list can hold: what a sample has not seen
    evidence    answers with what they rest on: who was asked, how many draws
    joint       one context for all tasks: statistic, null, progress, one or several
    marks       every claim, and the figure its number must pass
    judging     the one rule that turns a number into a verdict
    answered    which prompts count: not answered, not measurable
    adjusting   one claim on many tasks
    testable    what could come out at best, before any data
    claims      each claim: statistic, interval, null
    chain       all claims of one series, in their order
    synthetic   ladders of known truth, made of numbers alone
    simulation  the claims tried on them: coverage, false alarms, power
    joint_synthetic  ladders of many tasks: the joint test tried on them
    validation  what was simulated, kept row by row in data/validation
    readings    the three readings of the paper's ratio, on ladders of known truth
"""
