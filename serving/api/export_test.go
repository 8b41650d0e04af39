package api

// ChangesSQL is the query by which a tail of a whole view looks for changes.
func ChangesSQL(v View, speedTable string) string {
	t, err := compileTail(v, map[string][]string{})
	if err != nil {
		panic(err) // there are no parameters
	}
	return t.changesSQL(speedTable)
}
