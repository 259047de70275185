"""The level-triggered loop that makes true what is declared."""
