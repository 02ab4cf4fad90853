"""Looking into runs: moments with frames and locals, forks, timelines and graphs. Nothing here changes a log."""
