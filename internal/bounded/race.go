//go:build race

package bounded

// The race detector makes code several times slower and its memory larger: what it leaves room for is
// found without it, by the fuzz targets, which run without it.
const slack = 10
