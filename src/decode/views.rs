//! Builds Arrow view arrays (String and Binary) from the bytes of replies.

use polars_arrow::array::{BinaryViewArrayGeneric, View, ViewType};
use polars_arrow::bitmap::Bitmap;
use polars_buffer::Buffer;

use super::text::load_short;

/// The most that one data buffer holds: offsets are 32 bits, signed in some readers.
const MAX_BUFFER_LEN: usize = i32::MAX as usize;

/// Views of values; values of more than twelve bytes lie in data buffers.
#[derive(Debug, Default)]
pub struct Views {
    views: Vec<View>,
    active: Vec<u8>,
    full: Vec<Buffer<u8>>,
}

impl Views {
    /// No values, with room for `rows` views. Room for the bytes of long values
    /// is made as they come.
    pub fn with_room(rows: usize) -> Self {
        Self {
            views: Vec::with_capacity(rows),
            ..Self::default()
        }
    }

    /// Makes room for as many bytes of long values as another column took, and
    /// a few more.
    pub fn make_room_like(&mut self, other: &Self) {
        self.active
            .reserve(other.active.len() + other.active.len() / 16);
    }

    /// Adds a value, copied once.
    #[inline(always)]
    pub fn push(&mut self, value: &[u8]) {
        let view = self.view_of(value);
        self.views.push(view);
    }

    #[inline(always)]
    fn view_of(&mut self, value: &[u8]) -> View {
        if value.len() <= View::MAX_INLINE_SIZE as usize {
            return inline(value);
        }
        self.store(value)
    }

    /// Adds a value `rows` times, stored once.
    pub fn push_times(&mut self, value: &[u8], rows: usize) {
        if rows > 0 {
            self.push(value);
            let view = self.views.last().copied().unwrap_or_default();
            self.views.resize(self.views.len() + rows - 1, view);
        }
    }

    #[inline]
    fn store(&mut self, value: &[u8]) -> View {
        if self.active.len() + value.len() > MAX_BUFFER_LEN {
            self.seal();
        }
        let offset = self.active.len();
        self.active.extend_from_slice(value);
        View {
            // Both fit: the tokenizer takes no longer value, and a buffer that
            // holds more than one is no longer than MAX_BUFFER_LEN.
            length: value.len() as u32,
            prefix: load_short(&value[..4]) as u32,
            buffer_idx: self.full.len() as u32,
            offset: offset as u32,
        }
    }

    #[cold]
    fn seal(&mut self) {
        if !self.active.is_empty() {
            self.full.push(std::mem::take(&mut self.active).into());
        }
    }

    /// Adds `additional` empty values, for rows that are null.
    pub fn extend_empty(&mut self, additional: usize) {
        self.views
            .resize(self.views.len() + additional, View::default());
    }

    /// Puts a value in the place of one that is there, which had better be empty: its
    /// bytes stay in the data buffer.
    #[inline]
    pub fn replace(&mut self, at: usize, value: &[u8]) {
        if at < self.views.len() {
            self.views[at] = self.view_of(value);
        }
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.views.len()
    }

    /// Drops the values from `len` on. Their bytes stay in the data buffer,
    /// unless they are its end.
    pub fn truncate(&mut self, len: usize) {
        while self.views.len() > len {
            let Some(view) = self.views.pop() else { return };
            let begins = view.offset as usize;
            if !view.is_inline()
                && view.buffer_idx as usize == self.full.len()
                && begins + view.length as usize == self.active.len()
            {
                self.active.truncate(begins);
            }
        }
    }

    /// The finished array.
    ///
    /// # Safety
    /// For `str`, every value must have been UTF-8.
    pub unsafe fn finish<T: ViewType + ?Sized>(
        mut self,
        validity: Option<Bitmap>,
    ) -> BinaryViewArrayGeneric<T> {
        self.seal();
        let buffers: Buffer<Buffer<u8>> = self.full.into();
        // SAFETY: every view was made beside the bytes it points at, and that
        // they are valid for `T` is the caller's word.
        unsafe {
            BinaryViewArrayGeneric::new_unchecked_unknown_md(
                T::DATA_TYPE,
                self.views.into(),
                buffers,
                validity,
                None,
            )
        }
    }
}

/// A view that holds its value of up to twelve bytes itself.
#[inline(always)]
fn inline(value: &[u8]) -> View {
    let bytes = load_short(value);
    // In memory, the value's bytes stand one after another behind the length.
    View {
        length: value.len() as u32,
        prefix: (bytes as u32).to_le(),
        buffer_idx: ((bytes >> 32) as u32).to_le(),
        offset: ((bytes >> 64) as u32).to_le(),
    }
}

#[cfg(test)]
mod tests {
    use polars_arrow::array::BinaryViewArray;

    use super::*;

    #[test]
    fn values_of_every_length_come_back() {
        let mut views = Views::default();
        let values: Vec<Vec<u8>> = (0..200u8).map(|len| (0..len).collect()).collect();
        for value in &values {
            views.push(value);
        }
        // SAFETY: any bytes are valid in a binary array.
        let array: BinaryViewArray = unsafe { views.finish(None) };
        assert_eq!(array.len(), values.len());
        for (row, value) in values.iter().enumerate() {
            assert_eq!(array.value(row), value.as_slice());
        }
    }

    #[test]
    fn a_value_may_be_there_many_times() {
        let mut views = Views::default();
        views.push_times(b"short", 2);
        views.push_times(b"a value that is not inline", 0);
        views.push_times(b"a value that is not inline", 3);
        let held = views.active.len();
        // SAFETY: all values are UTF-8.
        let array = unsafe { views.finish::<str>(None) };
        assert_eq!((array.len(), held), (5, 26));
        assert_eq!(
            (array.value(1), array.value(4)),
            ("short", "a value that is not inline")
        );
    }

    #[test]
    fn truncating_gives_the_bytes_back() {
        let mut views = Views::default();
        views.push(b"a value that is not inline");
        let held = views.active.len();
        views.push(b"another one that is not inline");
        views.push(b"short");
        views.truncate(1);
        assert_eq!((views.views.len(), views.active.len()), (1, held));
        views.extend_empty(2);
        // SAFETY: all values are UTF-8.
        let array = unsafe { views.finish::<str>(None) };
        assert_eq!(array.value(0), "a value that is not inline");
        assert_eq!(array.value(2), "");
    }
}
