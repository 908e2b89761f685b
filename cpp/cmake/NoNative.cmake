# What happens on a machine without a C++ compiler.

# dropwise_find_compiler(<out_var>): false only if there is no C++ compiler at all.
function(dropwise_find_compiler out_var)
  include(CheckLanguage)
  check_language(CXX)
  if(CMAKE_CXX_COMPILER)
    set(${out_var} TRUE PARENT_SCOPE)
    return()
  endif()
  # check_language also says no to a compiler that does not work.  One that somebody names, or that
  # lies in the PATH, is reported as found, so that enable_language() shows what is wrong with it.
  find_program(DROPWISE_ANY_CXX NAMES c++ g++ clang++ cl icpx nvc++ NO_CACHE)
  if(DROPWISE_ANY_CXX OR NOT "$ENV{CXX}" STREQUAL "")
    unset(CMAKE_CXX_COMPILER CACHE)
    set(${out_var} TRUE PARENT_SCOPE)
  else()
    set(${out_var} FALSE PARENT_SCOPE)
  endif()
endfunction()

# dropwise_install_without_native(<reason>): leave the reason where dropwise.show_config() reads it.
function(dropwise_install_without_native reason)
  message(WARNING "dropwise is built WITHOUT its native module: ${reason}. "
    "The Numba backend gives the same results, more slowly.")
  file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/_no_native.txt "${reason}\n")
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/_no_native.txt DESTINATION dropwise)
endfunction()
