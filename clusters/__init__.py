"""Where a run happens: cluster files, and bringing a cluster up and down."""
