"""Whole active-learning experiments on data whose labels are known; see `worker.simulate`.

pictures   a fully labeled data set: the pool, the test set
protocol   what an experiment compares: arms, seeds, budgets, training
cycle      one cycle of one arm: train, evaluate, score, select
grid       all cycles of an experiment, side by side, from where it stopped
journal    what was found, one line per cycle
report     table, learning curves, figures for other programs
published  the paper's experiments and what it reports
"""
