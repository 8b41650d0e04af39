package batch

// Shared returns the configuration with workers that join a reading of which so many rows are left.
func (c Config) Shared(rows int64) Config {
	c.share = rows
	return c
}
