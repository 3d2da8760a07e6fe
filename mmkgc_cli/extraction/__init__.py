"""From pictures, texts and numbers to feature stores: inputs, encoders, and what drives them."""
