package content

// Familiar says whether the process goes on knowing a workspace's newest backup.
func (k *Keeper) Familiar(uid string) bool {
	_, ok := k.familiar.Load(uid)
	return ok
}
