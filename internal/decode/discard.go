package decode

// Discard forgets the events appended since the last Record, for who wants to know only whether they fit.
func (d *Decoder) Discard() {
	for i := range d.cols {
		d.cols[i].truncate(0)
	}
	d.seqs, d.rowNums, d.rows, d.bytes = d.seqs[:0], d.rowNums[:0], 0, 0
}
