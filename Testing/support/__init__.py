"""What several tests share: data, models, servers and panels to test with."""
