package store

// WithNamedTemps has a store in a directory work as on a file system on which every file has a name.
func WithNamedTemps(s Store) Store {
	f := s.(*filesystem)
	f.temp = newNamedTemp
	return f
}
