"""From a `Lesion` to its radiomics features, and the tables of lesions that studies are made of."""
