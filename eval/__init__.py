"""Measuring: metrics, runs over data sets, results, comparison and the leaderboard (`python -m eval`)."""
