"""Many sites on one machine, running the deployed ServerApp and ClientApp."""
