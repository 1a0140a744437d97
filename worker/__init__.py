"""The worker: takes cycles from the database, trains, scores the pool and selects images."""
