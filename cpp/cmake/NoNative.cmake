# What happens on a machine without a C++ compiler.

# dropwise_find_compiler(<out_var>): false only if there is no C++ compiler at all.  One that is there
# but does not work counts as found, so that enable_language() shows what is wrong with it.
function(dropwise_find_compiler out_var)
  set(${out_var} TRUE PARENT_SCOPE)
  if(CMAKE_CXX_COMPILER OR CMAKE_TOOLCHAIN_FILE)
    return()
  endif()
  if(CMAKE_HOST_WIN32)  # Visual Studio is not in the PATH; CMake knows where to look
    include(CheckLanguage)
    check_language(CXX)
    if(NOT CMAKE_CXX_COMPILER)
      set(${out_var} FALSE PARENT_SCOPE)
    endif()
    return()
  endif()
  # CXX may name a compiler that is not there: scikit-build-core sets it to the one Python was built
  # with.  PATH decides, although CMake would look elsewhere too.
  separate_arguments(named NATIVE_COMMAND "$ENV{CXX}")
  list(APPEND named c++)
  list(GET named 0 named)
  find_program(compiler NAMES ${named} c++ g++ clang++ icpx nvc++
    PATHS ENV PATH NO_DEFAULT_PATH NO_CACHE)
  get_filename_component(found "${compiler}" NAME)
  get_filename_component(named "${named}" NAME)
  if(NOT compiler)
    set(${out_var} FALSE PARENT_SCOPE)
  elseif(NOT found STREQUAL named AND NOT "$ENV{CXX}" STREQUAL "")
    message(WARNING "CXX names ${named}, which is not there; using ${compiler}")
    set(ENV{CXX} ${compiler})
  endif()
endfunction()

# dropwise_install_without_native(<reason>): leave the reason where dropwise.show_config() reads it.
function(dropwise_install_without_native reason)
  message(WARNING "dropwise is built WITHOUT its native module: ${reason}. "
    "The Numba backend gives the same results, more slowly.")
  file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/_no_native.txt "${reason}\n")
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/_no_native.txt DESTINATION dropwise)
endfunction()
