"""What tests ask of a whole vault."""

from palate.client.vault import Purpose, Vault


def purposes_of(vault: Vault) -> list[str]:
    """Names of the purposes that have a key, sorted."""
    rows = vault._rows("SELECT purpose FROM keys WHERE purpose <> 'vault' ORDER BY purpose")
    return [row[0] for row in rows]


def verified(vault: Vault) -> int:
    """Compare the rows with the sealed sum, open every entry, and count them; raises VaultTampered."""
    with vault.reading():
        vault.check()
        return sum(len(vault.entries(Purpose(name, exported=False))) for name in purposes_of(vault))
