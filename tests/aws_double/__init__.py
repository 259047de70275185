"""A double of the parts of AWS that no emulator serves; what it shows is no proof about AWS."""
